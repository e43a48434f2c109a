"""The shared space: MiniLM's, less the mean caption, with the directions that pictures cannot predict damped."""

import numpy as np
from features import features_file
from image_tower import image_tower
from picture_sets import QUESTIONS, WORK, photographs
from text_teacher import MiniLM

SIZE, RESIZE = 224, "shortest"  # any will do: it only weighs text directions
MIX = 12.0  # how much the class-name mix counts beside the features; 6 and 12 were alike, 1 and 3 worse
DAMPING = 4.0  # of 0.5, 1, 2, 4: the mildest, and the best on captions/


class Ridge:
    """Weighted linear least squares from [features ** power, class-name mix] to a text space, intercept unpunished.

    Features are (n, 1280), or (n, 1280 + 352): what lies before the last convolution, averaged too, stands behind them.
    """

    def __init__(
        self,
        names: np.ndarray,
        ridge: float,
        *,
        mix: float = MIX,
        power: float = 1.0,
        loudness: float = 1.0,
        earlier: float = 0.4,
    ) -> None:
        head = image_tower().classifier
        self.weight, self.bias = head.weight.numpy(), head.bias.numpy()
        self.names, self.ridge = names, ridge  # names (1000, d): the text of each ImageNet class
        self.mix, self.power, self.loudness = mix, power, loudness  # of the features, which are never negative
        self.earlier = earlier  # loudness of what lies before them

    def inputs(self, features: np.ndarray) -> np.ndarray:
        """(n, 1280 [+ 352]) -> (n, 1280 [+ 352] + d + 1)."""
        width = self.weight.shape[1]
        last, earlier = features[:, :width], features[:, width:]
        logits = last @ self.weight.T + self.bias
        odds = np.exp(logits - logits.max(1, keepdims=True))
        mixed = odds / odds.sum(1, keepdims=True) @ self.names
        heard = [self.loudness * last**self.power, self.earlier * earlier]
        return np.concatenate([*heard, self.mix * mixed, np.ones((len(features), 1))], 1).astype(np.float32)

    def fit(self, features: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> "Ridge":
        """`coef_` (width of the inputs, d) from features (n, 1280 [+ 352]), targets (n, d), weights (n,)."""
        inputs = self.inputs(features)
        weighted = inputs * weights[:, None]
        punishment = np.diag(np.r_[np.full(inputs.shape[1] - 1, self.ridge), 1e-6])
        self.coef_ = np.linalg.solve(weighted.T @ inputs + punishment, weighted.T @ targets)
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        """(n, 1280 [+ 352]) -> (n, d), not normalised."""
        return self.inputs(features) @ self.coef_


def unit(rows: np.ndarray) -> np.ndarray:
    """The same rows with length 1."""
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def main() -> None:
    """Writes work/space.npz (mean, turn) from the four-fold residuals of the captions."""
    teacher = MiniLM()
    captions = [teacher.encode(texts) for texts in photographs("captioned").captions]
    labels = list(photographs("imagenet").label)
    names = unit(np.mean([teacher.encode([question.format(n) for n in labels]) for question in QUESTIONS], 0))
    pictures = np.load(features_file("captioned", SIZE, RESIZE, "plain")).astype(np.float32)
    classes = np.load(features_file("imagenet", SIZE, RESIZE, "plain")).astype(np.float32)
    means = unit(np.array([group.mean(0) for group in captions]))
    order = np.random.default_rng(0).permutation(len(pictures))
    residuals = []
    for fold in range(4):
        held, kept = order[fold::4], np.setdiff1d(order, order[fold::4])
        weights = np.r_[np.ones(len(kept)), np.full(len(classes), 0.3)]
        model = Ridge(names, ridge=300.0).fit(np.r_[pictures[kept], classes], np.r_[means[kept], names], weights)
        residuals += [captions[i] - row for i, row in zip(held, model.predict(pictures[held]), strict=True)]
    errors = np.concatenate(residuals)
    sizes, directions = np.linalg.eigh(errors.T @ errors / len(errors))
    turn = directions * (sizes + DAMPING * sizes.mean()) ** -0.5 @ directions.T
    turn /= np.sqrt((turn**2).sum() / len(turn))
    np.savez(WORK / "space.npz", mean=np.concatenate(captions).mean(0), turn=turn.astype(np.float32))


if __name__ == "__main__":
    main()

"""Classify tab: type classes, see the library sorted, put a few right by hand, and let the rest follow."""

from __future__ import annotations

from typing import Any, NamedTuple

import gradio as gr

from clipkit.classify.collection import USUAL

from .. import html
from ..server.state import Page
from ..theme import PRIVATE, piece, signal_piece
from .actions import ClassifyActions, ClassifyScreen
from .inputs import OWN, SETS_OF_TEMPLATES, Namer
from .session import ClassifySession
from .sorter import Sorter

TEACH = (
    "Type your classes, separated by commas: cat, dog, landscape. Press Sort.",
    "Click a picture in the wrong column and choose the right one. Keys 1 to 9 do the same, 0 means none of these.",
    "Press Learn: the other pictures are sorted again by your corrections. Export a table, folders, or the classifier.",
)


def tab(page: Page, here: gr.Tab) -> None:
    """Build the components and tie them to the actions."""
    asked = _question()
    notice = piece(elem_id="ck-classify-notice")
    with gr.Column(visible=False, elem_id="ck-tools") as tools:
        strict, learn, forget = _tools()
        learned = piece(elem_id="ck-learned")
    counted = piece(elem_id="ck-sorted")
    board = piece(
        html.note("Sort your pictures", "Name the classes, and each picture gets one.", steps=TEACH),
        elem_id="ck-board",
        on_load="window.clipkitClassify.columns(element, trigger, watch); // sends 'act'",
    )
    save = _export(page)
    signal = signal_piece("window.clipkitClassify")
    session = gr.State(ClassifySession())
    typed = (asked.words, asked.templates, asked.own, asked.library)
    screen = ClassifyScreen(
        session, *typed, notice, counted, board, signal, strict, learned, save.plan, tools, save.copy
    )
    sorter = Sorter()
    Namer(page, sorter).attach()
    actions = ClassifyActions(page, screen, sorter)
    _connect_question(asked, actions, screen)
    here.select(actions.arrive, [session, asked.words, asked.library], screen.outputs, **PRIVATE)
    board.act(actions.act, [session], [signal, counted], **PRIVATE, trigger_mode="multiple")
    strict.release(actions.set_aside, [session, strict], screen.outputs, **PRIVATE)
    learn.click(actions.learn, [session], screen.outputs, **_slow(screen))
    forget.click(actions.forget, [session], screen.outputs, **PRIVATE)
    _connect_export(save, actions, screen)


class _Question(NamedTuple):
    """What is asked: classes, templates and the library."""

    words: gr.Textbox
    templates: gr.Dropdown
    own: gr.Textbox
    library: gr.Dropdown
    sort: gr.Button
    load: gr.UploadButton


class _Export(NamedTuple):
    """What takes the classes out of the page."""

    as_csv: gr.Button
    as_head: gr.Button
    folder: gr.Textbox
    show: gr.Button
    copy: gr.Button
    plan: gr.HTML


def _question() -> _Question:
    with gr.Row(elem_id="ck-classes-row"):
        words = gr.Textbox(
            label="Classes",
            placeholder="cat, dog, landscape",
            info="Separated by commas, or one per line. pets and imagenet are ready-made lists.",
            lines=1,
            max_lines=6,
            max_length=100_000,
            scale=5,
            min_width=260,
            elem_id="ck-classes",
        )
        sets = [*SETS_OF_TEMPLATES, OWN]
        label = "Prompt templates"
        templates = gr.Dropdown(sets, value="simple", label=label, scale=1, min_width=130, elem_id="ck-templates")
        library = gr.Dropdown(label="Library", visible=False, scale=1, min_width=130, elem_id="ck-sort-library")
        with gr.Column(scale=0, min_width=150):
            sort = gr.Button("Sort", variant="primary", elem_id="ck-sort")
            kinds = [".txt", ".csv", ".json", ".safetensors"]
            load = gr.UploadButton("Open a file", file_types=kinds, size="sm", elem_id="ck-load")
    label, example = "Your templates, one per line", "a photo of a {}."
    own = gr.Textbox(label=label, placeholder=example, visible=False, lines=2, max_length=20_000)
    return _Question(words, templates, own, library, sort, load)


def _tools() -> tuple[gr.Slider, gr.Button, gr.Button]:
    with gr.Row(elem_id="ck-teach-row"):
        label = "Leave out uncertain pictures"
        strict = gr.Slider(0, 100, USUAL, step=1, label=label, scale=3, min_width=320, elem_id="ck-strict")
        learn = gr.Button("Learn", variant="primary", scale=0, min_width=160, elem_id="ck-learn")
        forget = gr.Button("Clear labels", scale=0, min_width=150, elem_id="ck-forget")
    return strict, learn, forget


def _export(page: Page) -> _Export:
    with gr.Accordion("Export", open=False, elem_id="ck-away"):
        with gr.Row():
            as_csv = gr.Button("Table of labels (CSV)", size="sm", elem_id="ck-labels-csv")
            as_head = gr.Button("Classifier (.safetensors)", size="sm", elem_id="ck-save-head")
        with gr.Row(visible=page.shelf.is_local):
            label, example = "Copy into class folders", "~/sorted"
            folder = gr.Textbox(label=label, placeholder=example, max_length=4096, scale=4, elem_id="ck-sort-into")
            show = gr.Button("Preview", size="sm", scale=1, min_width=120, elem_id="ck-plan")
            copy = gr.Button("Copy now", variant="primary", size="sm", visible=False, scale=1, min_width=120)
        plan = piece(elem_id="ck-plan-shown")
    return _Export(as_csv, as_head, folder, show, copy, plan)


def _connect_question(asked: _Question, actions: ClassifyActions, screen: ClassifyScreen) -> None:
    rest = [asked.templates, asked.own, asked.library]
    words_in, slow = [screen.session, asked.words, *rest], _slow(screen)
    asked.templates.input(lambda chosen: gr.Textbox(visible=chosen == OWN), [asked.templates], [asked.own], **PRIVATE)
    asked.sort.click(actions.sort, words_in, screen.outputs, **slow)
    asked.words.submit(actions.sort, words_in, screen.outputs, **slow)
    asked.load.upload(actions.load, [screen.session, asked.load, *rest], screen.outputs, **slow)


def _connect_export(save: _Export, actions: ClassifyActions, screen: ClassifyScreen) -> None:
    session = screen.session
    save.as_csv.click(actions.csv, [session], screen.outputs, **PRIVATE)
    save.as_head.click(actions.save, [session], screen.outputs, **PRIVATE)
    save.show.click(actions.plan, [session, save.folder], screen.outputs, **PRIVATE)
    save.copy.click(actions.copy, [session], screen.outputs, **PRIVATE)


def _slow(screen: ClassifyScreen) -> dict[str, Any]:
    """The model may have to be loaded."""
    return {**PRIVATE, "show_progress": "minimal", "show_progress_on": [screen.columns]}

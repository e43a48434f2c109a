"""Pictures: bytes to upright pixels, thumbnails, augmentation."""

"""Training examples in the layouts in which others publish them: files flow in, examples and rejections flow out."""

"""Which picture sizes a model serves: what it was trained on, and nothing else."""


def served_sizes(
    pipeline_class: str, sample_size: int, latent_factor: int, patch_size: int
) -> tuple[tuple[int, int], ...]:
    """List the sizes of a PixArt model.

    Args:
        pipeline_class: "PixArtAlphaPipeline" or "PixArtSigmaPipeline".
        sample_size: Edge of its latent picture, in cells.
        latent_factor: Pixels along an edge for one cell.
        patch_size: Cells along an edge for one image token.

    Returns:
        (width, height) in pixels: the native square first, then, for the published models that
        were trained on many aspect ratios, the ratios they were trained on.
    """
    native = sample_size * latent_factor
    name = _TRAINED_RATIOS.get((pipeline_class, native)) if latent_factor == 8 else None
    if name is None:
        return ((native, native),)
    from diffusers.pipelines.pixart_alpha import pipeline_pixart_alpha, pipeline_pixart_sigma

    table = getattr(pipeline_pixart_alpha, name, None) or getattr(pipeline_pixart_sigma, name)
    token = latent_factor * patch_size
    others = sorted((int(width), int(height)) for height, width in table.values())
    return (
        (native, native),
        *(s for s in others if s != (native, native) and s[0] % token == s[1] % token == 0),
    )


# Alpha's 256 and 512 models saw squares only; the others are the "MS" (multi-scale) models.
_TRAINED_RATIOS = {
    ("PixArtAlphaPipeline", 1024): "ASPECT_RATIO_1024_BIN",
    ("PixArtSigmaPipeline", 512): "ASPECT_RATIO_512_BIN",
    ("PixArtSigmaPipeline", 1024): "ASPECT_RATIO_1024_BIN",
    ("PixArtSigmaPipeline", 2048): "ASPECT_RATIO_2048_BIN",
}

"""Which variants of a model a server was told to serve."""

from app.settings import Settings
from core.errors import UnknownNameError
from pipelines.model_info import ModelInfo


def served_variants(settings: Settings, first: ModelInfo) -> list[str]:
    """Return which variants are loaded beside the default one.

    Args:
        settings: Name them.
        first: The default one; knows all.

    Returns:
        Their names.

    Raises:
        UnknownNameError: If the model does not have one of them.
    """
    wanted = (settings.serve_variants or "").strip()
    named = first.variants if wanted == "all" else [name.strip() for name in wanted.split(",")]
    for name in filter(None, named):
        if name not in first.variants:
            raise UnknownNameError("variant", name, first.variants, param="serve_variants")
    return [name for name in dict.fromkeys(filter(None, named)) if name != first.variant]

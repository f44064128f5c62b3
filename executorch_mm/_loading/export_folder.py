"""An export folder of transformers on its way to the core."""

from __future__ import annotations

import os
from pathlib import Path

from executorch_mm import _core
from executorch_mm._files import export_folder, model_files
from executorch_mm._loading.options import PathLike


def is_export_folder(path: PathLike) -> bool:
    """Whether it is a folder with an export.json."""
    try:
        return model_files.is_export_folder(Path(os.fspath(path)))
    except TypeError:  # no path: whoever opens it says so
        return False


def core_folder(folder: PathLike) -> _core.ExportFolder:
    """The folder as the core takes it.

    Args:
        folder: With an export.json.

    Raises:
        ModelLoadError: A file is missing, is damaged or is of another format or version.
        ContractError: It is no export of a model that writes text.
    """
    found = export_folder.read_export_folder(Path(os.fspath(folder)))
    parts = [
        _core.FolderPart(
            name=component.name,
            path=component.file,
            inputs=list(component.inputs),
            outputs=list(component.outputs),
            shapes=[list(component.shapes.get(name, ())) for name in component.inputs],
        )
        for component in found.components.values()
    ]
    return _core.ExportFolder(
        parts=parts,
        max_cache_len=found.max_cache_len,
        eos_ids=list(found.eos_ids),
        image_features=found.image_features,
        skips_first_feature=found.skips_first_feature,
    )

"""What PyInstaller cannot see: libraries beside the module, the shipped model, lazy imports."""

from PyInstaller.utils.hooks import (
    collect_data_files,
    collect_dynamic_libs,
    collect_submodules,
    copy_metadata,
)

datas = [
    *collect_data_files("executorch_mm", excludes=["_loading/_pyinstaller"]),
    *copy_metadata("executorch_mm"),
]
binaries = collect_dynamic_libs("executorch_mm")
hiddenimports = collect_submodules("executorch_mm", lambda name: "_pyinstaller" not in name)

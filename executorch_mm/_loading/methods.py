"""Programs that are no language models: loaded, and their methods found by name and signature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from executorch_mm import _core
from executorch_mm._loading.log_lines import forward_log_lines
from executorch_mm._loading.options import LoadOptions, PathLike, check_load_options, core_options
from executorch_mm.errors import ContractError

if TYPE_CHECKING:
    from typing_extensions import Unpack


def load_methods(model_path: PathLike, **options: Unpack[LoadOptions]) -> _core.MethodRunner:
    """Loads a program; the GIL is released meanwhile.

    Args:
        model_path: The .pte file.
        **options: Fields of `LoadOptions`.

    Raises:
        InputError: An option is wrong.
        ModelLoadError: The file cannot be read, verified or initialised.
    """
    check_load_options(options)
    try:
        return _core.MethodRunner.load(core_options(model_path, **options))
    finally:
        forward_log_lines()


def find_method(
    runner: _core.MethodRunner, names: Sequence[str], kind: Literal["float", "int"], ranks: Sequence[int]
) -> _core.MethodSpec | None:
    """The first of the methods that the program has.

    Args:
        runner: The program.
        names: Of the methods, the one to prefer first.
        kind: Of the elements that it is to take.
        ranks: Numbers of axes that its input may have.

    Raises:
        ContractError: It takes something else than one such array, or gives more than one.
    """
    methods = runner.methods
    found = next((methods[name] for name in names if name in methods), None)
    if found is None:
        return None
    fits = len(found.inputs) == 1 and len(found.outputs) == 1
    if not fits or kind not in found.inputs[0].dtype or len(found.inputs[0].shape) not in ranks:
        rank = " or ".join(map(str, ranks))
        raise ContractError(
            f"{found.name}: expected one input, {kind}s of rank {rank}, and one output, "
            f"got inputs {found.inputs} and outputs {found.outputs}"
        )
    return found

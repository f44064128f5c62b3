"""Programs that are no language models: loaded, and their methods found by name and signature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from executorch_mm import _core
from executorch_mm._loading.admission import Admission
from executorch_mm._loading.log_lines import forward_log_lines
from executorch_mm._loading.option_checks import optional_count
from executorch_mm._loading.options import MethodOptions, PathLike, check_method_options, core_options
from executorch_mm.errors import ContractError

if TYPE_CHECKING:
    from typing_extensions import Unpack


def load_methods(
    model_path: PathLike, **options: Unpack[MethodOptions]
) -> tuple[_core.MethodRunner, Admission]:
    """Loads a program; the GIL is released meanwhile.

    Args:
        model_path: The .pte file.
        **options: Fields of `MethodOptions`.

    Returns:
        The program, whose calls take turns, and what bounds the requests that may be under way.

    Raises:
        InputError: An option is wrong.
        ModelLoadError: The file cannot be read, verified or initialised.
    """
    check_method_options(options)
    admission = Admission(optional_count(options.pop("max_requests", None), "max_requests"))
    try:
        # What is left are fields of `LoadOptions`, which mypy does not know of a TypedDict.
        return _core.MethodRunner.load(core_options(model_path, **options)), admission  # type: ignore[misc]
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

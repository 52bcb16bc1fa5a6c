import re

from edge_runtime.bundle.errors import EdgeshipError
from model_server import errors
from model_server.app import STATUSES


def test_the_tree_at_the_top_is_the_tree_of_the_classes() -> None:
    """Every class is drawn, two spaces or more before its words, below its base class."""
    drawn: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"([ │├└─]*)([A-Z]\w+)", line)
        if match is None or match[2] == "Errors":
            continue
        depth = len(match[1])
        above = [(at, name) for at, name in above if at < depth]
        if above:
            drawn[match[2]] = above[-1][1]
        above.append((depth, match[2]))
    drawn.pop("BundleError")
    assert drawn == {name: getattr(errors, name).__bases__[0].__name__ for name in errors.__all__}


def test_every_error_has_a_status_and_few_are_the_servers_own_fault() -> None:
    def status(kind: type[BaseException]) -> int:
        return next(STATUSES[base] for base in kind.__mro__ if base in STATUSES)  # type: ignore[index]

    ours = {name: status(getattr(errors, name)) for name in errors.__all__}
    assert issubclass(errors.ServerError, EdgeshipError)
    assert {name for name, code in ours.items() if code == 500} == {
        "AuditBroken",
        "InferenceError",
        "JobError",
        "JobLost",
        "NotStored",
        "ReadinessBroken",
        "ReleaseError",
        "RemoteError",
        "RepositoryDamaged",
        "ReviewFailed",
        "RolloutError",
        "ServerError",
        "ServerRefused",
        "ServerUnreachable",
        "SettingsError",
        "SigningError",
        "TelemetryError",
    }

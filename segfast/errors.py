"""The errors a user can cause: one line each, naming the file or key and the remedy."""

# SPDX-License-Identifier: Apache-2.0


class UserError(ValueError):
    """Something the user gave is wrong; the command line prints it as one line and exits with status 2."""


class ConfigError(UserError):
    """A config key is wrong; `path` is the key's dotted path, for example `model.decode_head.num_class`."""

    def __init__(self, path: str, problem: str) -> None:
        """Keep the dotted path apart from the problem, so that outer builders can extend it."""
        super().__init__(f"{path}: {problem}" if path else problem)
        self.path = path
        self.problem = problem

    def under(self, parent: str) -> "ConfigError":
        """The same error seen from one level further out: `parent.path: problem`."""
        return ConfigError(".".join(part for part in (parent, self.path) if part), self.problem)

    def __reduce__(self) -> tuple:
        """Rebuild from both parts, so that the error survives the trip out of a worker process."""
        return ConfigError, (self.path, self.problem)


class DataError(UserError):
    """An image, a mask or a data folder cannot be used."""


class OutputError(UserError):
    """A file cannot be written: the disk is full, the folder is read-only. The command line exits with status 1."""

    def __init__(self, path: object, reason: object, consequence: str = "") -> None:
        """Name the file and the system's reason; `consequence` is appended."""
        why = getattr(reason, "strerror", None) or reason
        super().__init__(f"cannot write {path}: {why}{consequence}")
        self.path, self.reason, self.consequence = path, why, consequence

    def __reduce__(self) -> tuple:
        """Rebuild from its parts."""
        return OutputError, (self.path, self.reason, self.consequence)


class CheckpointError(UserError):
    """A checkpoint is missing, unreadable, or does not fit the model."""


class LabelError(UserError):
    """Labels lie outside [0, num_classes) and are not the ignore index."""

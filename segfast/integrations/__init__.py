"""Our kernels inside other packages, one file for each; nothing in segfast imports them.

A file is imported by the user who has the package: `segfast.integrations.mmseg`, `.smp`, `.torchmetrics`,
`.transformers`, `.lightning`.
"""

# SPDX-License-Identifier: Apache-2.0


def missing(packages: str, extra: str, error: ImportError) -> ImportError:
    """The error for a package that an integration needs and cannot import.

    Args:
        packages: what to install.
        extra: segfast's optional dependency group that names them.
        error: what went wrong; its text tells a broken installation from a missing one.
    """
    return ImportError(
        f"segfast.integrations.{extra} needs {packages}: {error} "
        f"(pip install {packages}, or segfast-torch[{extra}])"
    )

"""The operators: functional, on the CPU and CUDA, each with its eager definition `<op>_reference`."""

# SPDX-License-Identifier: Apache-2.0

from segfast.ops._labels import check_labels
from segfast.ops.confusion_matrix import confusion_matrix, confusion_matrix_reference
from segfast.ops.cross_entropy import (
    CrossEntropyTerms,
    cross_entropy,
    cross_entropy_reference,
    cross_entropy_terms,
)
from segfast.ops.normalize_pad_stack import normalize_pad_stack, normalize_pad_stack_reference
from segfast.ops.pad_stack import pad_stack, pad_stack_reference
from segfast.ops.upsample_argmax import upsample_argmax, upsample_argmax_reference
from segfast.ops.upsample_confusion_matrix import (
    upsample_confusion_matrix,
    upsample_confusion_matrix_reference,
)
from segfast.ops.upsample_cross_entropy import (
    upsample_cross_entropy,
    upsample_cross_entropy_reference,
    upsample_cross_entropy_terms,
)

__all__ = [
    "CrossEntropyTerms",
    "check_labels",
    "confusion_matrix",
    "confusion_matrix_reference",
    "cross_entropy",
    "cross_entropy_reference",
    "cross_entropy_terms",
    "normalize_pad_stack",
    "normalize_pad_stack_reference",
    "pad_stack",
    "pad_stack_reference",
    "upsample_argmax",
    "upsample_argmax_reference",
    "upsample_confusion_matrix",
    "upsample_confusion_matrix_reference",
    "upsample_cross_entropy",
    "upsample_cross_entropy_reference",
    "upsample_cross_entropy_terms",
]

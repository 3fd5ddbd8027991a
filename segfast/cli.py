"""The command line: train, test, predict, check-data, bench, doctor."""

# SPDX-License-Identifier: Apache-2.0

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segfast.distributed import is_first
from segfast.distributed.launch import speaker
from segfast.errors import ConfigError, OutputError, UserError
from segfast.paths import printable

_TRUST = "unpickle the checkpoint whatever it holds: DANGER, such a file can run any program as you"
DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0 done, 2 wrong input, 1 anything else, 130 interrupted.

    A training that SIGTERM ended raises SystemExit(143), its state saved.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    # argparse takes positional arguments in one run; overrides may also stand behind the options.
    if any("=" not in item or item.startswith("-") for item in rest) or (
        rest and not hasattr(options, "items")
    ):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        if rest:
            options.items = [*options.items, *rest]
        options.run(options)
    except UserError as error:
        if os.environ.get("SEGFAST_DEBUG") == "1":
            traceback.print_exc()
        behind_the_bar = "" if is_first() else "\n"
        text = f"{behind_the_bar}segfast: error: {speaker()}{' '.join(str(error).split())}\n"
        sys.stderr.write(printable(text))
        return FAILED if isinstance(error, OutputError) else WRONG_INPUT
    except KeyboardInterrupt as stop:
        if is_first():
            sys.stderr.write(f"segfast: {str(stop) or 'interrupted'}\n")
        return INTERRUPTED
    except Exception:
        traceback.print_exc()
        return FAILED
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="segfast", description="Train semantic segmentation with fused kernels.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    train = commands.add_parser("train", help="train a model; without CONFIG, the built-in demo")
    train.add_argument(
        "items", nargs="*", metavar="CONFIG | key.path=value", help="a config file and overrides"
    )
    train.add_argument("--work-dir", help="where to leave checkpoints, metrics and pictures")
    train.add_argument("--resume", action="store_true", help="continue the run in the work dir")
    train.add_argument("--amp", action="store_true", help="mixed precision")
    train.add_argument("--seed", type=int, help="seed of everything random")
    train.add_argument("--device", help="cpu, cuda, cuda:1, ...")
    train.add_argument("--trust-checkpoint", action="store_true", help=_TRUST)
    train.set_defaults(run=_train)

    test = commands.add_parser("test", help="evaluate a checkpoint")
    test.add_argument("config", metavar="CONFIG")
    test.add_argument("checkpoint", metavar="CHECKPOINT")
    test.add_argument("items", nargs="*", metavar="key.path=value")
    test.add_argument("--work-dir")
    test.add_argument("--device")
    test.add_argument("--trust-checkpoint", action="store_true", help=_TRUST)
    test.set_defaults(run=_test)

    predict = commands.add_parser("predict", help="segment images")
    predict.add_argument("checkpoint", metavar="CHECKPOINT")
    predict.add_argument("images", nargs="+", metavar="IMAGE|DIR")
    predict.add_argument(
        "--out", required=True, help="folder for index masks and coloured pictures"
    )
    predict.add_argument("--device")
    predict.add_argument("--config", help="build the model from this, not from the checkpoint")
    predict.add_argument("--trust-checkpoint", action="store_true", help=_TRUST)
    predict.set_defaults(run=_predict)

    check = commands.add_parser(
        "check-data", help="scan the data sets of a config; exit status 0 fine, 2 problems found"
    )
    check.add_argument("items", nargs="*", metavar="CONFIG | key.path=value")
    check.add_argument("--out", metavar="FILE", help="the full list: data set, kind, file")
    check.add_argument("--workers", type=_count, help="processes that read; default: one a core")
    check.set_defaults(run=_check_data)

    bench = commands.add_parser("bench", help="time the operators against eager PyTorch")
    bench.add_argument("names", nargs="*", metavar="OP", help="operators, or runner; default: all")
    bench.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    bench.add_argument("--threads", metavar="N[,N...]", help="of both sides, a row each")
    bench.add_argument("--rounds", type=int, default=11, help="calls of each side, at least")
    bench.add_argument("--compiled", action="store_true", help="also time torch.compile")
    bench.add_argument("--memory", action="store_true", help="peak memory instead of time (CPU)")
    bench.add_argument("--json", metavar="FILE", help="also write everything to this file")
    bench.set_defaults(run=_bench)

    doctor = commands.add_parser("doctor", help="what is installed, and what does not fit")
    doctor.set_defaults(run=_doctor)
    return parser


class _Parser(argparse.ArgumentParser):
    """argparse in our voice: one line, status 2."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """One line, and where the help is."""
        sys.stderr.write(f"segfast: error: {message} (see `{self.prog} --help`)\n")
        sys.exit(WRONG_INPUT)


def _count(text: str) -> int:
    """A whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number >= 0, got {text!r}")
    return int(text)


def _split(items: Sequence[str]) -> tuple[str | None, dict[str, Any]]:
    """Positional arguments -> (config or None, overrides)."""
    from segfast.config import parse_override

    configs = [item for item in items if "=" not in item]
    if len(configs) > 1:
        raise ConfigError(
            "",
            f"expected one CONFIG, got {' and '.join(configs)} (hint: overrides are written key=value)",
        )
    return (configs[0] if configs else None), dict(
        parse_override(item) for item in items if "=" in item
    )


def _train(options: argparse.Namespace) -> None:
    from segfast.api import train

    config, overrides = _split(options.items)
    if options.device:
        overrides["device"] = options.device
    if options.seed is not None:
        overrides["randomness.seed"] = options.seed
    if options.amp:
        overrides["optim_wrapper.type"] = "AmpOptimWrapper"
    result = train(
        config,
        work_dir=options.work_dir,
        resume=options.resume,
        overrides=overrides,
        trust_checkpoint=options.trust_checkpoint,
    )
    if not is_first():
        return
    best = f", best {Path(result.best_checkpoint).name}" if result.best_checkpoint else ""
    last = f"checkpoint {Path(result.checkpoint).name}{best}, " if result.checkpoint else ""
    with contextlib.suppress(OSError):  # nobody listens any more
        print(
            f"everything is in {result.work_dir}: {last}config.yaml, log.txt, metrics.jsonl, pictures/"
        )


def _test(options: argparse.Namespace) -> None:
    from segfast.api import test

    config, overrides = _split([options.config, *options.items])
    if options.device:
        overrides["device"] = options.device
    test(
        config,
        options.checkpoint,
        work_dir=options.work_dir,
        overrides=overrides,
        trust_checkpoint=options.trust_checkpoint,
    )


def _predict(options: argparse.Namespace) -> None:
    from segfast.predictions import write_predictions

    count = write_predictions(
        options.checkpoint,
        options.images,
        options.out,
        device=options.device,
        config=options.config,
        trust_checkpoint=options.trust_checkpoint,
    )
    out = Path(options.out)
    text = (
        f"{count} images: index masks in {out / 'masks'}, coloured pictures in {out / 'pictures'}"
    )
    print(printable(text))


def _check_data(options: argparse.Namespace) -> None:
    from segfast.check_data import check_data

    config, overrides = _split(options.items)
    report = check_data(config, overrides=overrides, num_workers=options.workers)
    print(printable(str(report)))
    if options.out:
        try:
            lines = "".join(f"{line}\n" for line in report.lines())
            Path(options.out).write_text(lines, "utf-8")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"--out {options.out}: {reason}") from error
    if report.num_problems:
        listed = f"all in {options.out}" if options.out else "--out FILE lists all"
        raise UserError(f"check-data: {report.num_problems} problems in the data ({listed})")


def _bench(options: argparse.Namespace) -> None:
    from segfast.bench.command import run

    run(options)


def _doctor(options: argparse.Namespace) -> None:
    from segfast.doctor import report

    print(report())

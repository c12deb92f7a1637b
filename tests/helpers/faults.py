"""Kills a tiny run at every change of a file, damages the files of others, and compares what comes of it.

    python -m tests.helpers.faults kills                # before and after each change; hours on a small machine
    python -m tests.helpers.faults kills --every 40     # a sample of them
    python -m tests.helpers.faults damage --count 200   # damaged, truncated and swapped files of two runs

A change is what Python tells its audit hooks (files opened for writing, renamed, removed, folders made and removed),
in the output folder, whoever asks for it: `hfssl.runtime.files`, datasets, transformers, tokenizers; and the writers
that Python does not see: safetensors and `torch.save`. Each run is a fork of this process, which has loaded the
libraries and has computed nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

import hfssl.deploy.push
import hfssl.pipeline.fit
import hfssl.pipeline.presets
from hfssl.errors import HfsslError
from hfssl.pipeline.presets import Preset
from hfssl.runtime.files import sha256_of

SMALL = Preset(
    supervised={"max_steps": 2, "save_steps": 1, "logging_steps": 1, "per_device_train_batch_size": 6},
    contrastive=None,
    pretext=None,
    self_training={
        "max_steps": 2,
        "save_steps": 1,
        "logging_steps": 1,
        "rounds": 1,
        "mc_passes": 2,
        "num_teachers": 1,
        "backbone_probe": True,
    },
    max_pool_rows=12,
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.mkdir", "os.rmdir", "os.remove", "os.rename", "os.truncate", "os.link", "os.symlink")
TIMES = ("seconds", "attempts", "command", "finished")


class Changes:
    """Counts the changes below a folder, and kills this process before or after one of them.

    Args:
        folder (`Path`): The folder.
        stop_at (`int`, *optional*): Number of the change, from 0; `None` only counts.
        after (`bool`, defaults to `False`): Whether the change is made before the process is killed. A file that is
            opened for writing is then empty.
        log (`Path`, *optional*): File for a line per change.
    """

    def __init__(self, folder: Path, stop_at: int | None = None, *, after: bool = False, log: Path | None = None):
        self.root, self.stop_at, self.after, self.log = str(folder.resolve()), stop_at, after, log
        self.count, self._busy = 0, False

    def watch(self) -> None:
        """Begins; an audit hook stays until the process ends."""
        sys.addaudithook(self._audit)
        for module, name in ((safetensors.torch, "save_file"), (torch, "save")):
            setattr(module, name, self._watched(getattr(module, name), name))
        import transformers.modeling_utils

        transformers.modeling_utils.safe_save_file = safetensors.torch.save_file

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if self._busy:
            return
        if event == "open":
            path, _, flags = args
            if isinstance(flags, int) and flags & WRITING and isinstance(path, str | bytes | os.PathLike):
                self._change(f"open {os.fsdecode(path)}", os.fsdecode(path), lambda: Path(os.fsdecode(path)).touch())
        elif event in CHANGES:
            path = args[1] if event in ("os.rename", "os.link", "os.symlink") else args[0]
            where = self._absolute(path, args[-1] if event in ("os.remove", "os.rmdir", "os.mkdir") else -1)
            self._change(f"{event} {where}", where, None if event == "os.mkdir" else _made(event, args))

    def _absolute(self, path: Any, dir_fd: Any) -> str:
        name = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
        if isinstance(dir_fd, int) and dir_fd >= 0 and not os.path.isabs(name):
            return os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), name)
        return name

    def _watched(self, write: Callable[..., Any], name: str) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            path = next((str(arg) for arg in (*args, *kwargs.values()) if isinstance(arg, str | os.PathLike)), "")
            self._change(f"{name} {path}", path, lambda: Path(path).write_bytes(b"half"))
            return write(*args, **kwargs)

        return watched

    def _change(self, what: str, path: str, make: Callable[[], Any] | None) -> None:
        if not os.path.abspath(path).startswith(self.root):
            return
        self._busy = True
        try:
            if self.log is not None:
                with open(self.log, "a", encoding="utf-8") as file:
                    file.write(what + "\n")
            if self.count == self.stop_at:
                if self.after and make is not None:
                    make()
                os.kill(os.getpid(), signal.SIGKILL)
            self.count += 1
        finally:
            self._busy = False


def _made(event: str, args: tuple[Any, ...]) -> Callable[[], Any] | None:
    """Returns a function that makes the change of an audit event."""
    if event == "os.rename":
        return lambda: os.replace(args[0], args[1])
    if event in ("os.remove", "os.rmdir"):
        work, given = (os.unlink if event == "os.remove" else os.rmdir), args[-1]
        return lambda: work(args[0], **({"dir_fd": given} if isinstance(given, int) and given >= 0 else {}))
    return None


def forked(work: Callable[[], Any], said: Path) -> int:
    """Runs `work` in a fork; returns its exit status, negative for a signal, and writes what it said into a file."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with open(said, "w", encoding="utf-8") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            status = _status(work)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _status(work: Callable[[], Any]) -> int:
    """Returns 0 for a success, 2 for one sentence of hfssl, 1 for a traceback."""
    try:
        work()
    except HfsslError as error:
        print(error, file=sys.stderr)
        return 2
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def fit_small(options: dict[str, Any], changes: Changes | None = None) -> None:
    """Runs `fit` with the preset `SMALL`."""
    torch.set_num_threads(1)
    hfssl.pipeline.presets.PRESETS["quick"] = SMALL
    if changes is not None:
        changes.watch()
    from hfssl.pipeline.fit import fit

    fit(**options)


def bits(folder: Path) -> tuple[str, Any]:
    """Returns what two equal runs have in common: the digest of the weights, and the results without times."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return sha256_of(folder / "model" / "model.safetensors"), _without_times(results)


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(entry) for key, entry in value.items() if key not in TIMES}
    return [_without_times(entry) for entry in value] if isinstance(value, list) else value


class Bench:
    """Runs tiny runs in one working folder.

    Args:
        folder (`Path`): Empty folder to work in.
        options (`dict[str, Any]`): Arguments of `fit` without `output_dir`.
    """

    def __init__(self, folder: Path, options: dict[str, Any]):
        self.folder, self.options, self.said = folder, options, folder / "said.txt"
        self.log = folder / "changes.txt"

    def fit(self, output: Path, changes: Changes | None = None, **more: Any) -> int:
        """Returns the exit status of one run."""
        return forked(lambda: fit_small({**self.options, **more, "output_dir": str(output)}, changes), self.said)

    def whole(self) -> tuple[tuple[str, Any], list[str]]:
        """Returns bits and changes of a run that nothing disturbs, which stays in `whole/`."""
        output = self.folder / "whole"
        self.log.unlink(missing_ok=True)
        status = self.fit(output, Changes(output, log=self.log))
        if status != 0:
            raise RuntimeError(self.said.read_text())
        return bits(output), self.log.read_text().splitlines()

    def killed(self, number: int, *, after: bool, expected: tuple[str, Any]) -> str:
        """Kills a run at a change, resumes it, and compares; returns what went wrong, or an empty string."""
        output = self.folder / "killed"
        shutil.rmtree(output, ignore_errors=True)
        status = self.fit(output, Changes(output, number, after=after))
        if status == 0:
            return "" if bits(output) == expected else "not killed, and other bits"  # it took fewer changes this time
        if status != -signal.SIGKILL:
            return f"ended with {status} before the kill: {self.said.read_text()[-500:]}"
        if self.fit(output, resume=True) != 0:
            return f"not resumed: {self.said.read_text()[-500:]}"
        if bits(output) != expected:
            return "other bits after the resume"
        left = [path for path in output.rglob("*.tmp")] + [path for path in output.rglob("checkpoints")]
        return f"left: {left[0].relative_to(output)}" if left else ""

    def damaged(self, source: Path, damage: Callable[[Path], str], expected: tuple[str, Any]) -> tuple[str, str]:
        """Damages a copy of a run and uses it; returns what was damaged, and what went wrong or an empty string."""
        output = self.folder / "damaged"
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(source, output)
        what = damage(output)

        def use() -> None:
            fit_small({**self.options, "output_dir": str(output), "resume": True})
            from hfssl.deploy.push import files_to_push
            from hfssl.models.auto import from_pretrained

            from_pretrained(output / "model")
            files_to_push(output, "me/reviews", include_report=True)

        status = forked(use, self.said)
        said = self.said.read_text()
        if status == 0:
            return what, "" if bits(output) == expected else "accepted, with other bits"
        if status == 2:
            return what, "" if "Traceback" not in said else "a traceback"
        return what, f"status {status}: {said[-600:]}"


def damages(seed: int) -> Iterator[Callable[[Path], str]]:
    """Yields functions without end that damage one file of a run and say what they did, by kinds in turn."""
    number = 0
    while True:
        yield lambda folder, number=number: _damage(folder, random.Random(f"{seed}-{number}"), number % 4)
        number += 1


def _damage(folder: Path, choose: random.Random, kind: int) -> str:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 0)
    path = choose.choice(paths)
    content, name = bytearray(path.read_bytes()), path.relative_to(folder)
    if kind == 0:
        position = choose.randrange(len(content))
        content[position] ^= 1 << choose.randrange(8)
        path.write_bytes(content)
        return f"bit {position} of {name}"
    if kind == 1:
        size = choose.randrange(len(content))
        path.write_bytes(content[:size])
        return f"{name} cut to {size} of {len(content)} bytes"
    if kind == 2:
        start = choose.randrange(len(content))
        end = min(len(content), start + 64)
        content[start:end] = choose.randbytes(end - start)
        path.write_bytes(content)
        return f"bytes {start} to {end} of {name}"
    others = [other for other in paths if other.suffix == path.suffix and other.read_bytes() != bytes(content)]
    if not others:
        path.write_bytes(b"")
        return f"{name} emptied"
    other = choose.choice(others)
    path.write_bytes(other.read_bytes())
    other.write_bytes(content)
    return f"{name} swapped with {other.relative_to(folder)}"


def half_done(bench: Bench, changes: list[str], share: float) -> Path:
    """Returns the folder of a run that was killed after a share of its changes."""
    output = bench.folder / f"half-{share:g}"
    status = bench.fit(output, Changes(output, int(share * len(changes))))
    if status != -signal.SIGKILL:
        raise RuntimeError(f"expected a killed run, got {status}: {bench.said.read_text()}")
    return output


def example(folder: Path) -> dict[str, Any]:
    """Returns options of a tiny run on a table and a backbone that are made in `folder`."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    from tests.helpers.tiny_tables import CUES, WORDS, rows, write

    backbone = folder / "backbone"
    backbone.mkdir(parents=True)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys([*WORDS, *CUES["yes"], *CUES["no"]])]
    (backbone / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    BertTokenizerFast(vocab=str(backbone / "vocab.txt"), model_max_length=64).save_pretrained(backbone)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(pieces), max_position_embeddings=64, **sizes)).save_pretrained(backbone)
    table = write(folder / "train.csv", rows(unlabeled=16))
    options = {"train": str(table), "backbone": str(backbone), "preset": "quick", "quiet": True, "max_length": 32}
    return options | {"rounds": 1, "cross_fit": 2, "pretext": False}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("kills", "damage"))
    parser.add_argument("--every", type=int, default=1, help="Kill at every N-th change only.")
    parser.add_argument("--count", type=int, default=200, help="Number of damages.")
    parser.add_argument("--seed", type=int, default=0, help="Random seed of the damages.")
    options = parser.parse_args()
    gc.freeze()
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        status = forked(lambda: (folder / "example.json").write_text(json.dumps(example(folder))), folder / "said.txt")
        if status:
            raise RuntimeError((folder / "said.txt").read_text())
        bench = Bench(folder, json.loads((folder / "example.json").read_text()))
        expected, changes = bench.whole()
        print(f"{len(changes)} changes of files in a run.")
        if options.what == "kills":
            for number in range(0, len(changes), options.every):
                for after in (False, True):
                    found = bench.killed(number, after=after, expected=expected)
                    wrong += bool(found)
                    if found:
                        print(f"{'after' if after else 'before'} {number} ({changes[number]}): {found}", flush=True)
            done = 2 * len(range(0, len(changes), options.every))
        else:
            sources = [folder / "whole", half_done(bench, changes, 0.4), half_done(bench, changes, 0.8)]
            for number, damage in zip(range(options.count), damages(options.seed), strict=False):
                what, found = bench.damaged(sources[number % len(sources)], damage, expected)
                wrong += bool(found)
                if found:
                    print(f"{number}: {what}: {found}", flush=True)
            done = options.count
    print(f"{done} faults, {wrong} of them wrong.")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())

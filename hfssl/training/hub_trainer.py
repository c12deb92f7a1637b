"""Saving and pushing of a trainer's model, during and after training: our files, our card, one commit, our retries.

The stock trainer copies a fixed list of files without label maps, writes a card that describes an adapter as a model
trained from scratch, and pushes its arguments as a pickle that contains the token.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import HubStrategy

from hfssl.errors import ModelError
from hfssl.hub.upload import Files, Pushed, commit, make_repository
from hfssl.models.adapters import LABELS_FILE, label_map
from hfssl.models.introspection import transformers_model
from hfssl.models.mean_pooling import MeanPooledForSequenceClassification
from hfssl.reporting.trainer_card import TrainedModel, training_card
from hfssl.runtime.distributed import broadcast, failing_together
from hfssl.runtime.files import write_json
from hfssl.tasks.registry import get_task
from hfssl.training.checkpoint_pusher import CheckpointPusher
from hfssl.training.config import SSLConfig, changed_settings
from hfssl.training.objective import Objective

__all__ = ["HubTrainer"]

CARD = "README.md"
FULL_MODEL = re.compile(r"config\.json|generation_config\.json|model[^/]*\.safetensors(\.index\.json)?")
ADAPTER = re.compile(rf"adapter_config\.json|adapter_model\.safetensors|{re.escape(LABELS_FILE)}")
OF_A_TOKENIZER = {"added_tokens.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"}


class HubTrainer(Trainer):
    """Extends `Trainer` by complete saved folders and by pushes that hold all that `hfssl.from_pretrained` needs.

    `CheckpointPusher` sends pushes during training; if one fails, a warning is logged and training continues. The
    token and the texts are never pushed or saved.
    """

    # Narrower than in the stock trainer, which takes any model, arguments and processor.
    args: SSLConfig
    model: PreTrainedModel
    objective: Objective
    processing_class: PreTrainedTokenizerBase
    train_dataset: Dataset
    unlabeled_dataset: Dataset | None

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._pusher = CheckpointPusher(self.args.output_dir)
        # Now, while this process holds all weights. The map contains a digest of an adapter's body, which is frozen.
        self._label_map = None
        if self.args.should_save and self._is_adapter() and _is_classifier(self.model):
            self._label_map = label_map(self.model, _label_names(self.model))

    def _is_adapter(self) -> bool:
        return isinstance(self.model, PeftModel)

    # --- Saving ---

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:  # fact 14
        """Writes the stock files without the token, and the additional files of an adapter."""
        folder = Path(self.args.output_dir if output_dir is None else output_dir)
        has_card = (folder / CARD).exists()
        token, self.args.hub_token = self.args.hub_token, None  # all arguments are pickled into a file of the folder
        try:
            super()._save(output_dir, state_dict)
        finally:
            self.args.hub_token = token
        if self.args.should_save and self._is_adapter():
            if not has_card:
                (folder / CARD).unlink(missing_ok=True)  # peft's card is an empty form
            if self._label_map is not None:
                write_json(folder / LABELS_FILE, self._label_map)

    # --- Pushing ---

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Makes the repository if it is missing, and broadcasts its name to all ranks.

        Collective: every rank must call this.

        Raises:
            ModelError: The token is not valid, or the Hub does not answer. Found here, before hours of training.
        """
        args, name = self.args, None
        with failing_together(ModelError):
            if self.is_world_process_zero():
                name = make_repository(
                    args.hub_model_id or Path(args.output_dir).absolute().name,
                    private=args.hub_private_repo if private is None else private,
                    token=token or args.hub_token,
                )
        self.hub_model_id = broadcast(name)

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | Sequence[str] | None = None,
        model_name: str | None = None,
        dataset_tags: str | Sequence[str] | None = None,
    ) -> None:
        """Writes our card into the output folder, with the model's task and whether it is an adapter.

        Args:
            language (`str`, *optional*): Code of the language of the texts.
            license (`str`, *optional*): Hub license id.
            tags (`str` or `Sequence[str]`, *optional*): Further tags.
            model_name (`str`, *optional*): Folder or id that the code snippet loads. Default: the repository.
            dataset_tags (`str` or `Sequence[str]`, *optional*): Hub ids of the data.
        """
        if self.is_world_process_zero():
            card = self._card(model_name, license=license, language=language, tags=tags, datasets=dataset_tags)
            Path(self.args.output_dir, CARD).write_text(card, encoding="utf-8")

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **card: Any,
    ) -> Pushed | Future[Pushed] | None:
        """Saves the model in the output folder and pushes that folder's files in one commit.

        Collective: every rank must call this.

        Args:
            commit_message (`str`, *optional*, defaults to `"End of training"`): Title of the commit.
            blocking (`bool`, defaults to `True`): Whether to wait until the push is done.
            token (`str`, *optional*): Access token. Default: `args.hub_token`, `HF_TOKEN` or the token that `hf auth
                login` saved.
            revision (`str`, *optional*): Branch. Default: `args.hub_revision`.
            private (`bool`, *optional*): Whether a new repository is private. Default: `args.hub_private_repo`.
            card (`Any`): Keyword arguments of `create_model_card`.

        Returns:
            Description of the push, or a future of it; `None` on other ranks than the first.

        Raises:
            ModelError: See `hfssl.hub.upload.commit`. The model is in the output folder, so a second call suffices.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token=token, private=private)
        self.save_model(_internal_call=True)
        self.create_model_card(**card)
        if not self.is_world_process_zero():
            return None
        self._finish_current_push()
        folder = Path(self.args.output_dir)
        files = {**self._public_files(folder), CARD: folder / CARD}
        message = commit_message or "End of training"
        send = partial(self._commit, message=message, token=token, revision=revision)
        return send(files) if blocking else self._pusher.submit(files, send)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:  # fact 4
        """Does nothing: when the stock loop calls this, the checkpoint is not complete. See `push_checkpoint`."""

    def push_checkpoint(self, folder: str | Path) -> None:
        """Submits the push of a complete checkpoint's model, by `args.hub_strategy`, without waiting for the upload.

        The strategies `checkpoint` and `all_checkpoints` also send, in the same commit, all files that resuming needs.

        Args:
            folder (`str` or `Path`): Folder of the checkpoint.
        """
        args, folder = self.args, Path(folder)
        if not args.push_to_hub or not self.is_world_process_zero() or args.hub_strategy == HubStrategy.END:
            return
        if not args.hub_always_push and not self._pusher.is_idle:
            return
        self.callback_handler.on_push_begin(args, self.state, self.control)
        files: dict[str, Path | bytes] = {**self._public_files(folder), CARD: self._card().encode()}
        places = {HubStrategy.CHECKPOINT: "last-checkpoint", HubStrategy.ALL_CHECKPOINTS: folder.name}
        if args.hub_strategy in places:
            resumable = [p for p in folder.rglob("*") if p.is_file() and p.name not in (TRAINING_ARGS_NAME, CARD)]
            place = places[args.hub_strategy]
            files |= {f"{place}/{path.relative_to(folder).as_posix()}": path for path in resumable}
        message = f"Training in progress, step {self.state.global_step}"
        self._pusher.submit(files, partial(self._commit, message=message), warn=True)

    def _finish_current_push(self) -> None:  # fact 4
        self._pusher.wait()

    def _public_files(self, folder: Path) -> dict[str, Path | bytes]:
        """Returns the files of the model and its tokenizer; other files of the folder are not pushed."""
        model = ADAPTER if self._is_adapter() else FULL_MODEL
        tokenizer = OF_A_TOKENIZER | set(self.processing_class.vocab_files_names.values())
        paths = sorted(path for path in folder.iterdir() if path.is_file())
        return {path.name: path for path in paths if model.fullmatch(path.name) or path.name in tokenizer}

    def _commit(self, files: Files, *, message: str, token: str | None = None, revision: str | None = None) -> Pushed:
        revision = revision or self.args.hub_revision
        token = token or self.args.hub_token
        return commit(files, self.hub_model_id, message=message, revision=revision, token=token)

    def _card(
        self,
        path: str | None = None,
        tags: str | Sequence[str] | None = None,
        datasets: str | Sequence[str] | None = None,
        **metadata: Any,
    ) -> str:
        inner = transformers_model(self.model)
        rows = (self.train_dataset, self.unlabeled_dataset)
        classifies = self.objective.product == "classifier"
        trained = TrainedModel(
            path=path or self.hub_model_id or self.args.output_dir,
            trainer=type(self).__name__,
            base_model=inner.name_or_path,
            product=self.objective.product,
            described=self.objective.describe() | changed_settings(self.args),
            label_names=_label_names(self.model) if classifies else (),
            adapter=self._is_adapter(),
            pooling="mean" if isinstance(inner, MeanPooledForSequenceClassification) else "stock",
            labeled=len(rows[0] or ()),
            unlabeled=len(rows[1] or ()),
            step=self.state.global_step,
            max_steps=self.state.max_steps,
            seed=self.args.seed,
            task=get_task(self.args.task).facts(),
        )
        tags, datasets = ([given] if isinstance(given, str) else list(given or ()) for given in (tags, datasets))
        return training_card(trained, tags=[*tags, *(inner.model_tags or ())], datasets=datasets, **metadata)


def _is_classifier(model: Any) -> bool:
    return type(transformers_model(model)).__name__.endswith("ForSequenceClassification")


def _label_names(model: Any) -> list[str]:
    config = transformers_model(model).config
    return [config.id2label[number] for number in range(config.num_labels)]

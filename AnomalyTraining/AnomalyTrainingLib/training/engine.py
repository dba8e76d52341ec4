"""The training loop for detectors trained by gradient, on Lightning.

A run can be killed at any time: it goes on at the start of the epoch it was in, and since everything random is a
function of (seed, epoch, place), on the CPU it ends with the weights of a run that was never stopped.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader

from AnomalyDetectionLib.errors import InputError, OutputError
from AnomalyDetectionLib.imaging.write import atomically
from AnomalyDetectionLib.scoring.contract import Batch, Detector

from .config import TrainingSection
from .data import Batches, EpochOrder, as_it_is
from .schedule import Schedule
from .seeds import seed_of
from .synthetic_data import on_device

LAST, BEST, LOG = "last.ckpt", "best.pt", "log"
LOGGED = ("epoch", "train_loss", "val_loss", "learning_rate")
"""Columns of log/metrics.csv."""
EVENT_INTERVAL_S = 1.0

Events = Callable[[Mapping[str, Any]], None]
"""Called with `epoch`, `step`, `steps`, `train_loss`, `validation_loss`, `eta_s` and `memory_bytes`."""


def fit_by_gradient(
    detector: Detector,
    training: Batches,
    validation: Batches,
    settings: TrainingSection,
    folder: Path,
    *,
    device: torch.device,
    seed: int,
    progress: Callable[[str, float], None],
    events: Events = lambda fields: None,
) -> dict[str, Any]:
    """Train until the validation loss no longer falls, and leave the detector with the weights of the best epoch.

    Parameters
    ----------
    folder
        Takes the checkpoints and logs; what lies there of an earlier, stopped run is gone on from.

    Returns
    -------
    dict
        `epochs`, `best_epoch` (from 1), `validation_loss` of the best, `seconds`, and the `curve`: of every epoch its
        training loss, validation loss and learning rate.

    Raises
    ------
    InputError
        If the loss is no longer a number.
    """
    if settings.epochs <= detector.warmup_epochs:
        raise InputError(
            f"training.epochs is {settings.epochs}; it must exceed the {detector.warmup_epochs} epochs of warm-up."
        )
    module = _Module(detector, settings, seed)
    keeper = _Keeper(folder, detector.warmup_epochs)
    stopping = _Stopping(module.counting_from, settings.patience)
    reporter = _Reporter(progress, events, settings.epochs)
    order = EpochOrder(len(training), seed)
    common: dict[str, Any] = {"batch_size": settings.batch, "collate_fn": as_it_is, "num_workers": settings.workers}
    common |= {"pin_memory": device.type == "cuda", "persistent_workers": settings.workers > 0}
    with _quiet(), _signals():
        trainer = Trainer(
            accelerator={"cuda": "gpu"}.get(device.type, device.type),
            devices=[device.index or 0] if device.type == "cuda" else 1,
            precision="16-mixed" if device.type == "cuda" and settings.mixed_precision else "32-true",
            max_epochs=settings.epochs,
            num_sanity_val_steps=0,
            callbacks=[stopping, reporter, keeper],
            logger=TensorBoardLogger(folder, name="", version=LOG),
            plugins=[_AtomicCheckpoints()],
            log_every_n_steps=10,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        last = folder / LAST
        if not (last.exists() and _has_stopped(last, settings.patience)):
            trainer.fit(
                module,
                DataLoader(training, sampler=order, **common),
                DataLoader(validation, shuffle=False, **common),
                ckpt_path=last if last.exists() else None,
                weights_only=True,
            )
    best = torch.load(folder / BEST, map_location="cpu", weights_only=True)
    detector.cpu().load_state_dict(best["state"], strict=True)
    kept = torch.load(last, map_location="cpu", weights_only=True)["callbacks"][_Keeper.KEY]
    return {
        "epochs": len(kept["curve"]),
        "best_epoch": best["epoch"] + 1,
        "validation_loss": best["loss"],
        "seconds": round(kept["seconds"], 1),
        "curve": kept["curve"],
    }


class _Module(LightningModule):
    """A detector as Lightning wants it: Adam, and schedules that are part of the checkpoint.

    Attributes
    ----------
    counting_from
        The first epoch whose validation loss tells whether training still gets on.
    """

    def __init__(self, detector: Detector, settings: TrainingSection, seed: int) -> None:
        super().__init__()
        self.detector, self.settings, self._seed = detector, settings, seed
        self.schedule = Schedule(detector, settings)
        self.counting_from = max(detector.warmup_epochs, self.schedule.settled)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # Stepped below: Lightning would step it after the epoch's checkpoint, which would then lack it.
        self.plateau = ReduceLROnPlateau(
            self.schedule.optimiser, factor=self.settings.plateau_factor, patience=self.settings.plateau_patience
        )
        return self.schedule.optimiser

    def on_train_epoch_start(self) -> None:
        self.schedule.before_epoch(self.current_epoch)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self.schedule.before_step(self.current_epoch, batch_idx, int(self.trainer.num_training_batches))

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return on_device(batch.to(device))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        torch.manual_seed(seed_of("step", self._seed, batch.epoch, batch_idx))  # dropout, draws from the bottleneck
        loss = self.detector.loss(batch)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=batch.image.shape[0])
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        loss = self.detector.loss(batch)
        self.log("val_loss", loss, batch_size=batch.image.shape[0])

    def on_train_epoch_end(self) -> None:
        value = self.trainer.callback_metrics["val_loss"]
        if not torch.isfinite(value):
            raise InputError(
                f"The loss was no longer a number in epoch {self.current_epoch + 1}; lower training.learning_rate "
                "and start a new run."
            )
        if self.current_epoch >= self.counting_from and not self.schedule.by_cosine:
            self.plateau.step(value)
        self.log("learning_rate", self.plateau.optimizer.param_groups[0]["lr"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["plateau"] = self.plateau.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._plateau_state = checkpoint["plateau"]

    def on_train_start(self) -> None:
        if hasattr(self, "_plateau_state"):
            self.plateau.load_state_dict(self._plateau_state)


class _Stopping(EarlyStopping):
    """Early stopping that counts from the end of the warm-up."""

    def __init__(self, warmup: int, patience: int) -> None:
        super().__init__("val_loss", patience=patience, check_on_train_epoch_end=True)
        self._warmup = warmup

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch >= self._warmup:
            super().on_train_epoch_end(trainer, pl_module)


class _Keeper(Checkpoint):
    """Keeps the weights of the best epoch, the curve of losses and, after every epoch, all that is needed to go on.

    Lightning calls checkpoint callbacks last: after the module's schedule and the early stopping have had the epoch.
    The curve is written from here, since Lightning's CSV logger begins anew when a run is continued.
    """

    KEY = "keeper"

    def __init__(self, folder: Path, warmup: int) -> None:
        self._folder, self._warmup, self._best = folder, warmup, float("inf")
        self._curve: list[list[float]] = []
        self._seconds, self._since = 0.0, time.monotonic()

    @property
    def state_key(self) -> str:
        return self.KEY

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "curve": self._curve, "seconds": self._seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._best = float(state_dict["best"])
        self._curve, self._seconds = list(state_dict["curve"]), float(state_dict["seconds"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loss, epoch = float(trainer.callback_metrics["val_loss"]), trainer.current_epoch
        if epoch >= self._warmup and loss < self._best:
            self._best = loss
            detector = pl_module.detector
            assert isinstance(detector, Detector)
            state = {name: value.detach().cpu() for name, value in detector.state_dict().items()}
            _save(self._folder / BEST, {"state": state, "epoch": epoch, "loss": loss})
        self._curve.append([float(trainer.callback_metrics[name]) for name in LOGGED[1:]])
        now = time.monotonic()
        self._seconds, self._since = self._seconds + now - self._since, now
        rows = [",".join(map(str, (number, *row))) for number, row in enumerate(self._curve, 1)]
        text = "\n".join([",".join(LOGGED), *rows]) + "\n"
        atomically(self._folder / LOG / "metrics.csv", lambda partial: _write_text(partial, text))
        trainer.save_checkpoint(self._folder / LAST)


class _Reporter(Callback):
    """Passes on how far training is."""

    def __init__(self, progress: Callable[[str, float], None], events: Events, epochs: int) -> None:
        self._progress, self._events, self._epochs = progress, events, epochs
        self._started, self._done, self._told = time.monotonic(), 0, float("-inf")
        self._first: float | None = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        steps = int(trainer.num_training_batches)
        share = (trainer.current_epoch + (batch_idx + 1) / steps) / self._epochs
        if self._first is None:
            self._first, self._started = share, time.monotonic()
        self._progress(f"training, epoch {trainer.current_epoch + 1}", share)
        now = time.monotonic()
        if now - self._told >= EVENT_INTERVAL_S or batch_idx + 1 == steps:
            self._told = now
            self._tell(trainer, batch_idx + 1, steps, share, float(outputs["loss"]), None)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        steps = int(trainer.num_training_batches)
        metrics = trainer.callback_metrics
        share = (trainer.current_epoch + 1) / self._epochs
        self._tell(trainer, steps, steps, share, float(metrics["train_loss"]), float(metrics["val_loss"]))

    def _tell(
        self, trainer: Trainer, step: int, steps: int, share: float, loss: float, validation: float | None
    ) -> None:
        done = share - (self._first or 0.0)
        elapsed = time.monotonic() - self._started
        self._events(
            {
                "epoch": trainer.current_epoch + 1,
                "step": step,
                "steps": steps,
                "train_loss": loss,
                "validation_loss": validation,
                "eta_s": round(elapsed * (1 - share) / done, 1) if done > 0 and elapsed > 0 else None,
                "memory_bytes": _memory(trainer.strategy.root_device),
            }
        )


def _memory(device: torch.device) -> int:
    """Most memory used so far: the device's, or this process's."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class _AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints that are there whole or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        _save(Path(path), checkpoint)


def _save(path: Path, content: Mapping[str, Any]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            torch.save(dict(content), stream)
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch's writer says RuntimeError where the disk is full
        raise OutputError(f"{path}: the checkpoint cannot be written ({str(error).splitlines()[0]}).") from error
    finally:
        partial.unlink(missing_ok=True)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _has_stopped(last: Path, patience: int) -> bool:
    """Whether early stopping had ended the run that left this checkpoint."""
    try:
        callbacks = torch.load(last, map_location="cpu", weights_only=True)["callbacks"]
    except Exception as error:  # torch raises anything from UnpicklingError to RuntimeError here
        raise InputError(f"{last}: the checkpoint is damaged; start a new run in another folder.") from error
    return any(state.get("wait_count", 0) >= patience for state in callbacks.values())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's advertisements and advice, which mean nothing to who trains a detector here."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _signals() -> Iterator[None]:
    """Ctrl-C as everywhere else: Lightning makes an exit of it and leaves the signal ignored."""
    try:
        before = signal.getsignal(signal.SIGINT)
        yield
    except SystemExit as ended:
        if isinstance(ended.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if signal.getsignal(signal.SIGINT) is not before:
            signal.signal(signal.SIGINT, before)

"""The local door: a process that keeps torch and models loaded and scores for a program that must not freeze.

The program's side (`client`, `session`, `arrays`, `protocol`, `schema`, `workspace`, `tree`) needs numpy and nothing
else when it is imported; the worker's side (`child`, `tasks`, `models`) imports torch with the first request that needs
it.  Messages are JSON lines over standard input and output (`schemas/worker.schema.json`); voxels cross as .npy files
in a folder that only the user may enter, mapped into memory at the other end.

How a panel talks to it
-----------------------
::

    from AnomalyDetectionLib.slicer_ui.process import QtWorker       # or worker.process.Worker: waits, needs no Qt
    from AnomalyDetectionLib.worker.client import Watcher

    self.worker = QtWorker(log=self.addLog, trouble=self.showTrouble)   # starts nothing yet
    self.worker.client.load(bundle, watcher)                            # when a model is chosen: the score starts warm
    self.number = self.worker.client.score(volume, bundle, Watcher(done, failed, progress), device="auto")
    self.worker.client.cancel(self.number)                              # failed(kind "cancelled") within about a second
    self.worker.close()                                                 # cleanup(), onReload(), aboutToQuit

- `progress` is given a `Progress(stage, fraction, seconds_left)`; then exactly one of `done` and `failed` is called, in
  the thread of the window.  `done` is given the `ScoreResult` that `Scorer.score` would have returned, to the last bit.
- `failed` is given a `Failure(kind, message, details)`: `message` is one sentence to show as it is, `details` belong
  into the log.  Kinds: "bad-input" (the user's to mend), "out-of-memory", "fault", "cancelled", "worker" (it crashed or
  could not be started).  Whatever happened, the next request starts a fresh worker where one is needed.
- `trouble` is given the failure of a worker that dies while nothing is asked of it; `log` every line it says.
- The volume's voxels are written to a file in the background: hand over an array of your own, or do not change it
  until the first progress.  Requests queue up; `client.is_busy` says whether any is pending.
- `close` drops what is pending without a word: call it before the widgets go.
- The threshold is moved without the worker: `scoring.relabel.relabelled(result, rarity)`.
- `client.devices(watcher)` lists the devices (it imports torch in the worker), `client.hello["torch"]` is the installed
  version of torch or None.
"""

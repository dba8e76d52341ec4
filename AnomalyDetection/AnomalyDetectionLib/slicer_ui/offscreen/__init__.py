"""A scene with Slicer's own logics but without the application: for scene files from a script, and for tests.

Never imported inside Slicer; it needs the package `slicer-core`, which holds Slicer's libraries.
"""

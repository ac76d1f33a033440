"""What can go wrong between a training run and a bundle; every message names the fault."""


class ExportError(Exception):
    """A bundle cannot be made or read."""


class ContentsError(ExportError):
    """What should go into the bundle does not fit together."""


class GraphError(ExportError):
    """A model does not become an ONNX graph that takes every batch and length."""


class ParityError(ExportError):
    """The written bundle answers differently than torch does."""


class BundleExistsError(ExportError):
    """The place for the bundle is taken by something else."""


class BundleWriteError(ExportError):
    """The file system refused a file, for instance because the disk is full."""

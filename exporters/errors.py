"""The errors of an export; every message names the fault."""


class ExportError(Exception):
    """A bundle cannot be made or read."""


class ContentsError(ExportError):
    """The contents of a bundle do not fit each other."""


class GraphError(ExportError):
    """A model cannot be exported as an ONNX graph for every batch size and history length."""


class ParityError(ExportError):
    """The written bundle computes different results than torch."""


class BundleExistsError(ExportError):
    """The output directory holds something else."""


class BundleWriteError(ExportError):
    """The file system refused a file, for instance because the disk is full."""

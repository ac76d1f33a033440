"""Generated code of the package trimtab.v1."""

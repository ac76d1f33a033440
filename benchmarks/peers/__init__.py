"""Compares Trimtab with the same pipeline on other servers."""

"""``hasys import``: settings of other products become manifests. Text in, text out: nothing is executed."""

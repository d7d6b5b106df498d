"""``hasys top``: the cluster on a whole screen, with an operator's commands. Pure views, and the widgets around."""

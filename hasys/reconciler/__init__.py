"""The agent: brings this node's resources to the state that the assignments ask for, and reports what it sees.

Level-based: a reconciler gets the name of a group, never an event; it reads what it needs, does the next thing, and
says when to look again. Nothing here is authority: the guard decides whether an effect may happen.
"""

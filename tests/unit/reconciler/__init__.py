"""The agent's reconcilers against fakes, in virtual time."""

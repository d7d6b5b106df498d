"""The witness: a third voter that runs nothing, for a machine as small as you have."""

"""Scripts that generate what the repository keeps."""

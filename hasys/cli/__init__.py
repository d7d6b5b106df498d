"""The command line: thin commands over the API. Each command's module is imported when the command is used."""

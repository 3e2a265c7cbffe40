"""The rows of the table of calls, a file for each tag of the OpenAPI document."""

"""From rows to what a user reads: tables, descriptions, JSON. Pure: the time is an argument."""

"""How alike two scans are: maps, metrics by tissue, tables, figures and a report in words."""

"""Tasks in processes of this machine: results, errors, kills, signals, devices."""

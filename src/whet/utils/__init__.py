"""What every wing uses: lookup by name, parameters, files, progress, hardware."""

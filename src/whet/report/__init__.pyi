"""What studies, benchmarks and other packages may import from this wing."""

from .plots import curve_csv as curve_csv

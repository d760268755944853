"""What the benches share: statistics, interleaved runs, results and their targets, text tables and HTML reports."""

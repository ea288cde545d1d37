"""One compiled graph behind one contract, whoever compiled it; `registry` opens them by name."""

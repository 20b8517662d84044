"""The nouns: frozen records that cross boundaries and reach the disk. No I/O here."""

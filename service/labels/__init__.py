"""Label sets beside a bundle's own: records, store and synchronisation."""

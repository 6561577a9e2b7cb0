"""Data sets, initial parameters, models and measurements that topics import. No topic imports another topic."""

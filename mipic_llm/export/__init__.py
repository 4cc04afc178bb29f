"""A trained model as directories that other libraries load, proved by reloading."""

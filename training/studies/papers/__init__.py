"""The settings of the papers that this project starts from, measured beside their own figures."""

"""A study: settings × data sets × seeds, trained and scored one after another, with tables and figures."""

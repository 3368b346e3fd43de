"""What the environment may ask of the tests."""

import os

# Generated problems of a kind in one test. Sanitizers, emulators and further instruction sets ask for fewer.
COUNT = int(os.environ.get("FASTCONV_TEST_CASES", "900"))

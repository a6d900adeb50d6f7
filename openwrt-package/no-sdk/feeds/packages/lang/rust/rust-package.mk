# Replaces the SDK's rust-package.mk. It is empty, as cross/build builds the program.

# Stands in for the SDK's: the program is built by cross/build.

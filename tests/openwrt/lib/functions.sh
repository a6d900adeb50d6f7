# Stub of OpenWrt's /lib/functions.sh: reads UCI files, and has the default scripts that opkg and apk run for every package.

# A UCI file is sourced as a script of these three functions.
config() {
	CONFIG_SECTION=${2:-cfg$((CONFIG_COUNT += 1))}
	CONFIG_SECTIONS="$CONFIG_SECTIONS $CONFIG_SECTION"
	eval "CONFIG_${CONFIG_SECTION}_TYPE=\$1"
}

option() {
	eval "CONFIG_${CONFIG_SECTION}_$1=\$2"
}

list() {
	eval "CONFIG_${CONFIG_SECTION}_$1=\"\${CONFIG_${CONFIG_SECTION}_$1:+\$CONFIG_${CONFIG_SECTION}_$1 }\$2\""
}

config_load() {
	local stale
	for stale in $(set | sed -n 's/^\(CONFIG_[A-Za-z0-9_]*\)=.*/\1/p'); do
		unset "$stale"
	done
	CONFIG_COUNT=0
	[ ! -f "/etc/config/$1" ] || . "/etc/config/$1"
}

config_get() {
	eval "$1=\${CONFIG_$2_$3:-\$4}"
}

config_get_bool() {
	local value
	config_get value "$2" "$3" "$4"
	case $value in
		1 | on | true | yes | enabled) value=1 ;;
		0 | off | false | no | disabled) value=0 ;;
		*) value=$4 ;;
	esac
	eval "$1=$value"
}

config_foreach() {
	local section type
	for section in $CONFIG_SECTIONS; do
		config_get type "$section" TYPE
		[ "$type" != "$2" ] || "$1" "$section"
	done
}

package_of() {
	pkgname=${pkgname:-$(basename "${1%.*}")}
	info=/usr/lib/opkg/info/$pkgname
	filelist=$info.list
	[ ! -f "/lib/apk/packages/$pkgname.list" ] || filelist=/lib/apk/packages/$pkgname.list
}

add_group_and_user() { :; }

default_postinst() {
	local script status=0
	package_of "$1"
	for script in $(grep '^/etc/uci-defaults/' "$filelist"); do
		(cd /etc/uci-defaults && . "$script") && rm -f "$script"
	done
	[ ! -f "$info.postinst-pkg" ] || (. "$info.postinst-pkg") || status=$?
	for script in $(grep '^/etc/init.d/' "$filelist"); do
		[ "$PKG_UPGRADE" = 1 ] || "$script" enable
		"$script" start
	done
	return $status
}

default_prerm() {
	local script status=0
	package_of "$1"
	[ ! -f "$info.prerm-pkg" ] || (. "$info.prerm-pkg") || status=$?
	for script in $(grep '^/etc/init.d/' "$filelist"); do
		[ "$PKG_UPGRADE" = 1 ] || "$script" disable
		"$script" stop
	done
	return $status
}

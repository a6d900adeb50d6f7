# Stub of OpenWrt's procd.sh: writes what a service registers with procd as JSON. Supports capabilities.

json_start() {
	[ -z "$1" ] || printf '"%s":' "$1" >>/tmp/procd
	printf '%s' "$2" >>/tmp/procd
}
json_end() { printf '%s,' "$1" >>/tmp/procd; }
json_add_object() { json_start "$1" '{'; }
json_close_object() { json_end '}'; }
json_add_array() { json_start "$1" '['; }
json_close_array() { json_end ']'; }
json_add_string() {
	json_start "$1" "\"$2\""
	json_end ''
}

procd_open_instance() { json_add_object instance; }
procd_close_instance() { json_close_object; }
procd_open_data() { json_add_object data; }
procd_close_data() { json_close_object; }

procd_set_param() {
	local name=$1
	shift
	json_add_array "$name"
	while [ $# -gt 0 ]; do
		json_add_string '' "$1"
		shift
	done
	json_close_array
}

procd_add_jail() { json_add_string jail "$*"; }
procd_add_reload_trigger() { json_add_string reload_trigger "$*"; }
procd_add_raw_trigger() { json_add_string raw_trigger "$*"; }

procd_send() {
	sed 's/,\([]}]\)/\1/g; s/,$//' /tmp/procd >/tmp/procd.json
	rm /tmp/procd
	echo "procd set $1" >>/tmp/calls
}

procd_kill() {
	rm -f /tmp/procd.json
	echo "procd delete $1" >>/tmp/calls
}

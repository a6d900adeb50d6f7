'use strict';
'require baseclass';
'require rpc';

/*
 * Asks the router's own program: the ubus object `gatewrt`, each method a command of its command line. An answer that is
 * an error comes as a rejected promise, with an Error whose `kind` says which and whose message is for people.
 *
 * What is in an answer (names, reasons) was written by others: only ever text nodes.
 */

const UBUS_OK = 0;
const UBUS_NOT_FOUND = 4;
const UBUS_DENIED = 6;
const UBUS_TIMEOUT = 7;

function failed(kind, message) {
	return Promise.reject(Object.assign(new Error(message), { kind }));
}

/* What ubus itself says, when the program was not reached. */
function unreached(code) {
	switch (code) {
	case UBUS_NOT_FOUND:
		return failed('no_plugin', _('The router\'s RPC service does not know GateWRT. Reinstall the package gatewrt, or restart rpcd.'));

	case UBUS_DENIED:
		return failed('denied', _('You are not permitted to do that.'));

	case UBUS_TIMEOUT:
		return failed('timeout', _('No answer in time.'));

	default:
		return failed('unreached', _('The router did not answer (ubus code %d).').format(code));
	}
}

function heard(answer) {
	/* Of an answer without members only the code arrives. */
	if (typeof(answer) == 'number')
		return answer == UBUS_OK ? {} : unreached(answer);

	if (answer?.error != null)
		return failed(answer.error.kind, answer.error.message);

	return answer;
}

/* A request that did not get through: LuCI has words for why, not codes. */
function lost(error) {
	const why = error?.message ?? '';

	if (/denied/i.test(why))
		return unreached(UBUS_DENIED);

	return /timed out/i.test(why) ? unreached(UBUS_TIMEOUT) : failed('unreached', _('No answer from the router.'));
}

function method(name, params) {
	const call = rpc.declare({ object: 'gatewrt', method: name, params: params ?? [] });

	return (...values) => call(...values).then(heard, lost);
}

return baseclass.extend({
	status: method('status'),
	diag: method('diag'),
	join: method('join', [ 'code', 'name' ]),
	leave: method('leave', [ 'network' ]),
	exitEnable: method('exit_enable', [ 'network', 'exits', 'scope', 'no_kill_switch' ]),
	exitDisable: method('exit_disable', [ 'network' ]),
	exitForget: method('exit_forget', [ 'network' ]),

	/* The status, or why there is none: for views, which have something to show either way. */
	look() {
		return this.status().then((status) => ({ status }), (error) => ({ error }));
	},

	/* Whether this user may change anything. */
	mayChange() {
		return L.hasViewPermission() !== false;
	}
});

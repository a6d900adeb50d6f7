'use strict';
'require view';
'require poll';
'require gatewrt.router as router';
'require gatewrt.words as words';
'require gatewrt.dialogs as dialogs';

/* Joins a network with a code of its admin's, and leaves one. */

const HEAD = 'gw1.';
/* Before the address in a code: two keys of 32 bytes and a secret of 16; behind it four bytes that check the rest. */
const BEFORE = 80;
const BEHIND = 4;

/* Seconds between two looks for a network whose join gave no answer in time, and how many. */
const LOOK_EACH = 3;
const LOOKS = 20;

/* Where a code leads, read from the code alone: `{ network, host }`, or `null` when it is no code or not whole. */
function readCode(text) {
	const code = text.trim();

	if (!code.startsWith(HEAD))
		return null;

	try {
		const bytes = atob(code.substring(HEAD.length).replace(/-/g, '+').replace(/_/g, '/'));
		const found = bytes.slice(BEFORE, -BEHIND).match(/^https:\/\/([A-Za-z0-9._:[\]-]+)\/([a-z0-9-]+)$/);

		return found ? { host: found[1], network: found[2] } : null;
	}
	catch {
		return null;
	}
}

const wait = (seconds) => new Promise((resolve) => window.setTimeout(resolve, seconds * 1000));

/* The coordinator may take longer than one request to the router lasts. */
async function awaitNetwork(name) {
	for (let looks = LOOKS; looks > 0; looks--) {
		const { status } = await router.look();
		const network = status?.networks.find((one) => one.name == name);

		if (network)
			return { network: network.name, name: network.node_name, addresses: network.addresses };

		await wait(LOOK_EACH);
	}

	throw new Error(_('No answer in time. If the code was used up, ask for a new one.'));
}

/* `undefined` is left out of a request. */
function join(code, name) {
	const to = readCode(code);

	return router.join(code.trim(), name.trim() || undefined).catch((error) => {
		if (error.kind != 'timeout' || !to)
			throw error;

		return awaitNetwork(to.network);
	});
}

function joined(answer) {
	return E('div', { 'class': 'alert-message success', 'role': 'status' }, [
		E('h4', {}, [ _('Joined network %s').format(answer.network) ]),
		E('p', {}, [ _('This router is called %s there: %s').format(answer.name, words.list(answer.addresses)) ]),
		E('p', {}, [ E('a', { 'class': 'btn cbi-button', 'href': L.url('admin/vpn/gatewrt/status') }, [ _('See its status') ]) ])
	]);
}

function refused(error) {
	return error.kind == 'not_running' ? words.problem(error) : words.notice('error', _('This router did not join'), [ error.message ]);
}

function memberships({ status, error }, left) {
	if (error)
		return [ words.problem(error) ];

	return [ words.table(
		[ _('Network'), _('This router\'s name'), _('Addresses'), _('Membership') ],
		status.networks.map((network) => [
			[ E('strong', {}, [ network.name ]) ],
			[ network.node_name ],
			words.lines(network.addresses),
			[ E('button', {
				'class': 'btn cbi-button cbi-button-negative',
				'id': 'gatewrt-leave-%s'.format(network.name),
				'disabled': router.mayChange() ? null : true,
				'click': () => dialogs.leave(network.name, left)
			}, [ _('Leave…') ]) ]
		]),
		_('This router is in no network yet.')
	) ];
}

return view.extend({
	load() {
		return router.look();
	},

	render(first) {
		const disabled = router.mayChange() ? null : true;
		const code = E('textarea', {
			'id': 'gatewrt-code', 'class': 'cbi-input-textarea', 'rows': 4, 'style': 'width:100%', 'placeholder': 'gw1.…',
			'autocomplete': 'off', 'autocapitalize': 'none', 'spellcheck': 'false', 'disabled': disabled
		});
		const name = E('input', { 'id': 'gatewrt-name', 'type': 'text', 'class': 'cbi-input-text', 'maxlength': 63, 'autocapitalize': 'none', 'disabled': disabled });
		const leads = E('p', { 'aria-live': 'polite' });
		const result = E('div', { 'aria-live': 'polite' });
		const list = E('div');
		const refresh = () => router.look().then((seen) => words.show(list, memberships(seen, refresh)));
		const button = E('button', { 'class': 'btn cbi-button cbi-button-positive important', 'disabled': true }, [ _('Join') ]);

		/* A damaged code is told before it is sent. */
		const look = () => {
			const to = readCode(code.value);

			button.disabled = disabled || !to;
			words.show(leads, !code.value.trim() ? [] : [ to
				? E('span', {}, [ _('Leads to network %s at %s').format(to.network, to.host) ])
				: E('span', {}, [ words.label('odd', _('not whole')), ' ', _('A code begins with “gw1.” and is one long word: copy all of it.') ])
			]);
		};

		code.addEventListener('input', look);
		button.addEventListener('click', () => {
			button.disabled = true;
			words.show(result, [ E('p', { 'class': 'spinning' }, [ _('Asks the coordinator. This takes a few seconds, on a slow line up to a minute.') ]) ]);

			return join(code.value, name.value).then((answer) => {
				code.value = '';
				words.show(result, [ joined(answer) ]);
			}, (error) => words.show(result, [ refused(error) ])).then(look).then(refresh);
		});
		words.show(list, memberships(first, refresh));
		poll.add(refresh, 10);

		return E('div', {}, [
			E('h2', {}, [ _('Join a network') ]),
			E('div', { 'class': 'cbi-section' }, [
				E('div', { 'class': 'cbi-section-descr' }, [ _('Paste the code that the admin of the network gave you. It is good for one router, and for a limited time.') ]),
				words.field(_('Join code'), E('div', {}, [ code, leads ]), null, code.id),
				words.field(_('Name'), name, _('What this router is called in the network: letters, digits and “-”. Empty: its host name.')),
				E('div', { 'class': 'right' }, [ button ]),
				result
			]),
			E('div', { 'class': 'cbi-section' }, [ E('h3', {}, [ _('Networks of this router') ]), list ])
		]);
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});

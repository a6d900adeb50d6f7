'use strict';
'require baseclass';
'require ui';
'require gatewrt.router as router';
'require gatewrt.words as words';

/* What is asked in a dialog: which exit, whether to leave, what the self-test found. */

/* How the choices that are no exit's name are called; a node's name has no colon. */
const AUTO = ':auto';
const NONE = ':none';
const FORGET = ':forget';

function close() {
	ui.hideModal();
}

function cancel() {
	return E('button', { 'class': 'btn cbi-button', 'click': close }, [ _('Cancel') ]);
}

function choose(id, options, chosen) {
	return E('select', { 'class': 'cbi-input-select', 'id': id }, options.map(([ value, text ]) =>
		E('option', { 'value': value, 'selected': value == chosen ? true : null }, [ text ])));
}

function tick(id, text, ticked) {
	const box = E('input', { 'type': 'checkbox', 'id': id, 'checked': ticked ? true : null });

	return [ box, E('p', {}, [ E('label', { 'for': id }, [ box, ' ', text ]) ]) ];
}

function exitName(exit) {
	const state = exit.alive === false ? _('silent') : exit.rtt_ms != null ? '%d ms'.format(exit.rtt_ms) : null;

	return '%s (%s)'.format(exit.name, [ words.families(exit.offer) ].concat(state ?? []).join(', '));
}

/* What the choices say now. */
function current(network) {
	const scope = network.scopes[0];

	if (!scope)
		return network.scopes_by == 'coordinator' ? AUTO : NONE;

	return scope.exits?.length ? scope.exits[0] : AUTO;
}

/* A promise of the answer, and its hint as a notification. */
function done(asked) {
	return asked.then((answer) => {
		close();
		ui.addNotification(null, E('p', {}, [ answer?.hint || _('Done. It takes a few seconds until all of it is in effect.') ]), 'info');
	});
}

function send(network, { through, traffic, others, block }) {
	if (through == NONE)
		return router.exitDisable(network.name);

	if (through == FORGET)
		return router.exitForget(network.name);

	const exits = through == AUTO ? [ 'auto' ] : [ through ].concat(others ? [ 'auto' ] : []);

	return router.exitEnable(network.name, exits, [ traffic ], !block);
}

return baseclass.extend({
	/* Whose Internet traffic goes through which exit. */
	chooseExit(network) {
		const one = network.scopes[0];
		const through = choose('gatewrt-through', [
			[ AUTO, _('the nearest exit that works') ],
			...network.exits.map((exit) => [ exit.name, exitName(exit) ]),
			[ NONE, _('no exit: straight out from here') ],
			...(network.scopes_by == 'router' ? [ [ FORGET, _('as the network\'s admin says') ] ] : [])
		], current(network));
		const traffic = choose('gatewrt-traffic', [
			[ 'lan', _('of all hosts in the LANs') ],
			[ 'all', _('of the LANs and of the router itself') ]
		], one?.of.includes('all') ? 'all' : 'lan');
		const [ others, othersRow ] = tick('gatewrt-others', _('When it fails, take any other exit that works'), one?.auto ?? true);
		const [ block, blockRow ] = tick('gatewrt-block', _('While no exit works, block that traffic instead of sending it straight out (kill switch)'), one?.kill_switch ?? true);
		const trouble = E('div');
		const details = E('div', {}, [ words.field(_('Traffic'), traffic), othersRow, blockRow ]);
		const adapt = () => {
			details.hidden = through.value == NONE || through.value == FORGET;
			othersRow.hidden = through.value == AUTO;
		};

		through.addEventListener('change', adapt);
		adapt();
		ui.showModal([ _('Internet traffic and network %s').format(network.name) ], [
			words.field(_('Goes through'), through),
			details,
			trouble,
			E('div', { 'class': 'right' }, [
				cancel(), ' ',
				E('button', {
					'class': 'btn cbi-button cbi-button-positive important',
					'click': ui.createHandlerFn(this, () => done(send(network, {
						through: through.value,
						traffic: traffic.value,
						others: others.checked,
						block: block.checked
					})).catch((error) => words.show(trouble, [ words.notice('error', _('That did not work'), [ error.message ]) ])))
				}, [ _('Apply') ])
			])
		]);
		through.focus();
	},

	/* Whether to really leave; `left` is called once that is done. */
	leave(name, left) {
		const trouble = E('div');

		ui.showModal([ _('Leave network %s?').format(name) ], [
			E('p', {}, [ _('Its tunnels, its keys and all that it does here are gone then. To come back takes a new join code.') ]),
			trouble,
			E('div', { 'class': 'right' }, [
				cancel(), ' ',
				E('button', {
					'class': 'btn cbi-button cbi-button-negative important',
					'click': ui.createHandlerFn(this, () => done(router.leave(name)).then(left)
						.catch((error) => words.show(trouble, [ words.notice('error', _('That did not work'), [ error.message ]) ])))
				}, [ _('Leave') ])
			])
		]);
	},

	/* The self-test, with what to do about each fault. */
	diagnose() {
		const row = (check) => [
			[ check.ok ? words.label('good', _('good')) : words.label('bad', _('fault')) ],
			[ check.what ],
			[ check.found, !check.ok && check.advice ? words.small(check.advice) : '' ]
		];
		const report = ({ checks }) => {
			const faults = checks.filter((check) => !check.ok);

			return [
				E('p', {}, [ faults.length ? _('%d of %d checks found a fault.').format(faults.length, checks.length) : _('No fault was found.') ]),
				words.table([ _('State'), _('What'), _('Found') ], faults.concat(checks.filter((check) => check.ok)).map(row), '')
			];
		};

		return router.diag().then(report, (error) => [ words.problem(error) ]).then((content) => {
			ui.showModal([ _('Faults looked for') ], content.concat([
				E('div', { 'class': 'right' }, [ E('button', { 'class': 'btn cbi-button', 'click': close }, [ _('Close') ]) ])
			]));
		});
	}
});

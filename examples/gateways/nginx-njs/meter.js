// nginx's side of the meter: refusals with their real status, and the usage of what passes. For njs 0.7 and later.

var USAGE = /"total_tokens"\s*:\s*(\d+)/g; // the last one in the response counts
var TAIL = 16384; // bytes at the end of a response that are searched

var TITLES = {
    '400': 'Invalid request',
    '401': 'No identity',
    '402': 'Insufficient credits',
    '403': 'Refused',
    '409': 'Request id used before',
    '429': 'Too many requests',
    '503': 'Metering unavailable'
};

// The sidecar says 403 to auth_request, and in headers what it means.
function refuse(r) {
    var status = parseInt(r.variables.meter_status) || 403;
    var slug = r.variables.meter_problem || 'metering-unavailable';
    r.headersOut['Content-Type'] = 'application/problem+json';
    if (r.variables.meter_remaining) r.headersOut['X-Credits-Remaining'] = r.variables.meter_remaining;
    if (status === 503) r.headersOut['Retry-After'] = '1';
    r.return(status, JSON.stringify({
        type: '/problems/' + slug,
        title: TITLES[status] || 'Refused',
        status: status,
        code: slug.toUpperCase().replace(/-/g, '_')
    }));
}

// A usage in a header beats the body.
function told(r) {
    var value = r.headersOut['X-Credits-Actual'];
    if (value) {
        r.variables.meter_usage = value;
        delete r.headersOut['X-Credits-Actual'];
    }
}

var tails = {}; // of the responses that pass now, by reservation

function look(r, chunk, flags) {
    var id = r.variables.meter_reservation;
    r.sendBuffer(chunk, flags);
    if (!id || (r.variables.meter_usage && tails[id] === undefined)) return;
    var tail = ((tails[id] || '') + chunk).slice(-TAIL);
    var found, last;
    USAGE.lastIndex = 0;
    while ((found = USAGE.exec(tail)) !== null) last = found[1];
    if (last) r.variables.meter_usage = last;
    tails[id] = tail;
    if (flags.last) delete tails[id];
}

export default { refuse, told, look };

// nginx's side of the meter: refusals with their real status, and the end of what passes. For njs 0.7 and later.

var END = 16384; // characters at the end of a response that the sidecar gets: a datagram must hold them

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
    if (r.variables.meter_policy) r.headersOut['RateLimit-Policy'] = r.variables.meter_policy;
    if (r.variables.meter_limit) r.headersOut['RateLimit'] = r.variables.meter_limit;
    if (r.variables.meter_wait) r.headersOut['Retry-After'] = r.variables.meter_wait;
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

var kept = {}; // of the responses that pass now, by reservation

// The end of a response goes to the sidecar, which reads it as JSON wherever it was cut.
function look(r, chunk, flags) {
    var id = r.variables.meter_reservation;
    r.sendBuffer(chunk, flags);
    if (!id || (r.variables.meter_usage && r.variables.meter_usage !== '0')) return;
    var seen = kept[id] || {end: '', cut: false};
    var all = seen.end + chunk;
    seen.cut = seen.cut || all.length > END;
    seen.end = all.slice(-END);
    kept[id] = seen;
    r.variables.meter_body = seen.cut ? '' : seen.end;
    r.variables.meter_end = seen.cut ? seen.end : '';
    if (flags.last) delete kept[id];
}

export default { refuse, told, look };
